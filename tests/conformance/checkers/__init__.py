"""One keepalived.conf and its events: the real keepalived's services, recorded, and xlvs's on real IPVS."""
