"""ipvsadm"""
