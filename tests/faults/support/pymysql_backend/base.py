"""The name under which Django looks for a backend."""

import pymysql

pymysql.install_as_MySQLdb()

from django.db.backends.mysql.base import DatabaseWrapper  # noqa: E402

__all__ = ["DatabaseWrapper"]
