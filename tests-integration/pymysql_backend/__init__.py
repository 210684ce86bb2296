"""A Django database back end: Django's own for MySQL and MariaDB, on PyMySQL, which needs no compiler to install."""
