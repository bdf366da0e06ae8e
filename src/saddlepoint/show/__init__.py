"""Tables, charts and the page. Nothing here knows the paper."""
