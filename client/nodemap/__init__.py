"""The drawing of `netutil node map`: svg, html and dot."""
