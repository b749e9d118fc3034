"""The shop and its admin panel (modules named `admin_...`): two sites over one database, one application."""
