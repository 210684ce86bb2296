"""The Django project `ordering` in real servers, with real clients, some of which go away too early."""
