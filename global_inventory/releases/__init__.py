"""May a site drop its copy? Grants, and the copies that each namespace must keep."""
