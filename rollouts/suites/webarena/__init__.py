"""WebArena-Lite: 165 tasks on the user's own copies of WebArena's sites."""
