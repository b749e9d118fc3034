"""The shop and its admin panel (modules named `admin_...`): one application with two sites over one database."""
