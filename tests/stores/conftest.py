"""The database servers, for the stores."""

from tests.servers.databases import mariadb, postgresql, server_directory

__all__ = ["mariadb", "postgresql", "server_directory"]
