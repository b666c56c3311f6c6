"""What can be asked for content: layouts, archives, upstreams, and their union."""
