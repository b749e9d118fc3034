"""Sites that ship with the package: small, real web applications, and tasks on them."""
