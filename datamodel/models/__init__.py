"""The entities that every inventory has (reference `opencadc-storage-inventory`, section 1)."""

from datamodel.models.access import NamespaceGrant, RoleAssignment
from datamodel.models.artifact import Artifact, ObsoleteStorageLocation, RetiredArtifact, StorageLocation
from datamodel.models.deletion import BrakeRule, DeletionBrake
from datamodel.models.events import DeletedArtifactEvent, DeletedStorageLocationEvent, StorageLocationEvent
from datamodel.models.harvest import (
    FeedReader,
    HarvestConflict,
    HarvestedPage,
    HarvestRejection,
    HarvestState,
    RemoteInventory,
)
from datamodel.models.keys import ApiToken, PairingInvitation, PreauthKeyPair, TrustedKey
from datamodel.models.restoration import Restoration
from datamodel.models.site import InventoryIdentity, SiteLocation, StorageSite

__all__ = [
    "ApiToken",
    "Artifact",
    "BrakeRule",
    "DeletedArtifactEvent",
    "DeletedStorageLocationEvent",
    "DeletionBrake",
    "FeedReader",
    "HarvestConflict",
    "HarvestRejection",
    "HarvestState",
    "HarvestedPage",
    "InventoryIdentity",
    "NamespaceGrant",
    "ObsoleteStorageLocation",
    "PairingInvitation",
    "PreauthKeyPair",
    "RemoteInventory",
    "Restoration",
    "RetiredArtifact",
    "RoleAssignment",
    "SiteLocation",
    "StorageLocation",
    "StorageLocationEvent",
    "StorageSite",
    "TrustedKey",
]
