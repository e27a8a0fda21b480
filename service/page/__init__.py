"""The page at ``/``: files of this package that call the public methods from a browser."""
