"""The project as a WSGI and an ASGI application."""

import os

from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application

os.environ["DJANGO_SETTINGS_MODULE"] = "settings"
wsgi = get_wsgi_application()
asgi = get_asgi_application()
