"""WebArena-Infinity: small web applications with a verifier per task, from a checkout that the user names."""
