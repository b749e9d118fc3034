"""WebArena-Infinity: small web applications with a verifier per task, from a checkout whose path the user gives."""
