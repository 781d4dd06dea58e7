"""Sessions in web applications."""

from tribes.web.asgi import SessionMiddleware as SessionMiddleware
from tribes.web.cookies import CookieSettings as CookieSettings
from tribes.web.request_session import RequestSession as RequestSession
from tribes.web.urls import encode_url as encode_url
