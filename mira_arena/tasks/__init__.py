"""The tasks, one package per site (`atlas`: map and encyclopedia; `several`: across applications). `registry` lists them."""
