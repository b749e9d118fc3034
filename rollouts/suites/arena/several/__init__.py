"""Tasks over several applications, each in a tab of its own: what is found on one site is put to use on another."""
