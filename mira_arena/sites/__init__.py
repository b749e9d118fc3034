"""The web applications, one package each. `registry` lists them."""
