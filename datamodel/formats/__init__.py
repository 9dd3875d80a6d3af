"""How the admin writes times: as logs do, in UTC."""
