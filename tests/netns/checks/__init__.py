"""Each health check against real servers: well, hung, refusing, and saying the wrong thing."""
