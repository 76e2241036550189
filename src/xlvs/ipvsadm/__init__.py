"""ipvsadm 1.31, rebuilt on the data plane's port.

``parser`` (over ``popt``, ``options``, ``operands``) reads a command line into a
``request``; ``program`` runs it; ``listing``, ``connections`` and ``document`` print.
Output, messages and exit statuses are the real program's to the byte.
"""
