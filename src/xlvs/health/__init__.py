"""Health of real servers, pure: what a check asks, when it is asked, and what its answers mean."""
