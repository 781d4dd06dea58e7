"""Typed configuration: what a node is made from."""

from tribes.config.load import Loaded as Loaded
from tribes.config.load import config_from as config_from
from tribes.config.load import load_config as load_config
from tribes.config.load import read_config as read_config
from tribes.config.load import read_config_bytes as read_config_bytes
from tribes.config.local import local_config_from as local_config_from
from tribes.config.managers import BackupConfig as BackupConfig
from tribes.config.managers import ContextConfig as ContextConfig
from tribes.config.managers import ManagerConfig as ManagerConfig
from tribes.config.managers import PersistentConfig as PersistentConfig
from tribes.config.managers import StandardConfig as StandardConfig
from tribes.config.model import ChannelConfig as ChannelConfig
from tribes.config.model import DnsConfig as DnsConfig
from tribes.config.model import KubernetesConfig as KubernetesConfig
from tribes.config.model import MembershipConfig as MembershipConfig
from tribes.config.model import NodeConfig as NodeConfig
from tribes.config.model import ReceiverConfig as ReceiverConfig
from tribes.config.model import SenderConfig as SenderConfig
from tribes.config.model import StaticMemberConfig as StaticMemberConfig
from tribes.config.model import check_config as check_config
from tribes.config.notices import Kind as Kind
from tribes.config.notices import Notice as Notice
from tribes.config.paths import value_at as value_at
from tribes.config.paths import with_value as with_value
from tribes.config.toml_text import as_toml as as_toml
