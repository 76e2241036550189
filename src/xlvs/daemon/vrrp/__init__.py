"""The ``vrrp`` child of ``xlvs keepalived``: runs the machines of xlvs.vrrp on this node's interfaces."""
