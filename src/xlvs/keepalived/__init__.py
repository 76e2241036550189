"""The keepalived.conf language: from text to typed, validated values. Pure: files are read by a callback."""
