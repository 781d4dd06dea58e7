"""Tomcat's XML configuration: its attributes, what each does here, and how it is read."""

from tribes.config.tomcat.attributes import Attribute as Attribute
from tribes.config.tomcat.attributes import Use as Use
from tribes.config.tomcat.elements import every_attribute as every_attribute
from tribes.config.tomcat.reader import read_tomcat as read_tomcat
