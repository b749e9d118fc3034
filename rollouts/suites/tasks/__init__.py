"""Tasks in JSON on any sites, without Python."""
