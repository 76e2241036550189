"""Processes that run beside the data plane; forwarding needs none of them."""
