"""The operator's door to what every inventory has: artifacts and events to look at, tokens and switches to change.

Tables grow to 10^8 rows: lists follow an index, search by the start of a uri or by id, and count no further than a cap.
Whatever is shown of a row is escaped: uris and names come from anyone.
"""

from __future__ import annotations

import base64
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, cast
from urllib.parse import quote

from django.conf import settings
from django.contrib import admin, messages
from django.core.paginator import Paginator
from django.db.models import Model, QuerySet
from django.http import HttpRequest
from django.template.defaultfilters import filesizeformat
from django.utils.html import format_html
from django.utils.safestring import SafeString

from datamodel import admin_access, identity, keys, restoration  # noqa: F401  # each registers its pages
from datamodel.models import (
    Artifact,
    DeletedArtifactEvent,
    DeletedStorageLocationEvent,
    ObsoleteStorageLocation,
    PreauthKeyPair,
    Restoration,
    RetiredArtifact,
    SiteLocation,
    StorageLocation,
    StorageLocationEvent,
    StorageSite,
    TrustedKey,
)
from datamodel.pairing import admin as pairing_admin  # noqa: F401  # registers invitations
from datamodel.uris import prefix_upper_bound

admin.site.site_header = " · ".join(dict.fromkeys([settings.INVENTORY_NAME, settings.INVENTORY_ROLE]))
admin.site.site_title = settings.INVENTORY_NAME
admin.site.index_title = "Inventory"
admin.site.site_url = f"/{settings.INVENTORY_BASE_PATH}"


class CappedPaginator(Paginator):  # type: ignore[type-arg]  # the stub is generic, the class is not
    """Counts no further than `cap`: nobody turns more pages, and counting 10^8 rows takes minutes."""

    cap = 5_000

    @cached_property
    def count(self) -> int:
        rows = cast("QuerySet[Model]", self.object_list)
        return rows.order_by()[: self.cap].count()


class TableAdmin(admin.ModelAdmin):  # type: ignore[type-arg]  # the stub is generic, the class is not
    """A table of any size, to look at."""

    paginator = CappedPaginator
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    list_per_page = 50
    # Sorting by what has no index would sort the whole table.
    sortable_by = ()
    actions: Sequence[str] | None = None
    # Search looks at the start of this column, which has an index; None: by id only.
    uri_column: str | None = "uri"
    # What makes Django show the search box; the search itself is below.
    search_fields = ["id"]

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        return searched(queryset, search_term.strip(), self.uri_column), False

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False


def searched(queryset: QuerySet[Any], term: str, uri_column: str | None) -> QuerySet[Any]:
    """Rows with this id, or whose uri starts with the term: a range of the index in C collation."""
    if not term:
        return queryset
    try:
        return queryset.filter(id=uuid.UUID(term))
    except ValueError:
        if uri_column is None:
            return queryset.none()
    prefix = term if term.isascii() else quote(term, safe="!'()*+,-./:=@_~%")
    return queryset.filter(**{f"{uri_column}__gte": prefix, f"{uri_column}__lt": prefix_upper_bound(prefix)})


class StorageLocationInline(admin.StackedInline):  # type: ignore[type-arg]  # the stub is generic, the class is not
    model = StorageLocation
    extra = 0
    can_delete = False

    def has_add_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False


@admin.register(Artifact)
class ArtifactAdmin(TableAdmin):
    list_display = ["uri", "size", "content_type", "content_last_modified", "is_stored"]
    list_select_related = ["storage_location"]
    ordering = ["uri"]
    search_help_text = "The start of a uri, or an id"
    inlines = [StorageLocationInline]
    fields = [
        "uri",
        "explain",
        "id",
        "content_length",
        "content_type",
        "content_encoding",
        "content_checksum",
        "sha256",
        "content_last_modified",
        "copies",
        "uri_bucket",
        "last_modified",
        "meta_checksum",
        "meta_modified_at",
        "reaffirmed_at",
        "txid",
    ]

    def get_inlines(self, request: HttpRequest, obj: Artifact | None) -> list[Any]:
        return [StorageLocationInline] if obj is not None and hasattr(obj, "storage_location") else []

    @admin.display(description="size")
    def size(self, artifact: Artifact) -> str:
        return filesizeformat(artifact.content_length)

    @admin.display(description="stored here", boolean=True)
    def is_stored(self, artifact: Artifact) -> bool:
        return hasattr(artifact, "storage_location")

    @admin.display(description="SHA-256")
    def sha256(self, artifact: Artifact) -> str:
        return bytes(artifact.content_sha256).hex() if artifact.content_sha256 is not None else "-"

    @admin.display(description="copies at")
    def copies(self, artifact: Artifact) -> str:
        rows = SiteLocation.objects.filter(artifact_id=artifact.id).values_list("site__name", "releasing_at")
        return ", ".join(sorted(name if when is None else f"{name} (releasing)" for name, when in rows)) or "-"

    @admin.display(description="why")
    def explain(self, artifact: Artifact) -> SafeString:
        return format_html(
            '<a href="/{}explain?uri={}">policy, copies and last attempt</a>',
            settings.INVENTORY_BASE_PATH,
            quote(artifact.uri, safe=""),
        )


@admin.register(DeletedArtifactEvent)
class DeletedArtifactEventAdmin(TableAdmin):
    list_display = ["__str__", "id", "deleted_at", "last_modified", "txid"]
    ordering = ["-txid", "-id"]
    search_help_text = "The start of a uri, or an id"


@admin.register(DeletedStorageLocationEvent, StorageLocationEvent)
class LocationEventAdmin(TableAdmin):
    list_display = ["__str__", "id", "last_modified", "txid"]
    ordering = ["-txid", "-id"]
    uri_column = None
    search_help_text = "An id"


@admin.register(RetiredArtifact)
class RetiredArtifactAdmin(TableAdmin):
    list_display = ["uri", "state", "size", "born_at", "died_at", "state_at"]
    list_filter = ["state"]
    ordering = ["uri", "died_at"]
    search_help_text = "The start of a uri, or an id"
    exclude = ["content_sha256"]

    @admin.display(description="size")
    def size(self, retired: RetiredArtifact) -> str:
        return filesizeformat(retired.content_length)


@admin.register(ObsoleteStorageLocation)
class ObsoleteStorageLocationAdmin(TableAdmin):
    list_display = ["__str__", "last_modified"]
    ordering = ["last_modified"]
    uri_column = None
    search_help_text = "An id"


@admin.register(StorageSite)
class StorageSiteAdmin(TableAdmin):
    """A site's own switches can be changed at the site; whatever a global knows of sites it has harvested."""

    list_display = ["name", "resource_id", "allow_read", "allow_write", "last_modified"]
    ordering = ["name"]
    uri_column = "resource_id"
    search_help_text = "The start of a resource id, or an id"
    fields = ["name", "resource_id", "id", "allow_read", "allow_write", "last_modified", "meta_checksum", "txid"]
    readonly_fields = ["name", "resource_id", "id", "last_modified", "meta_checksum", "txid"]

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return settings.INVENTORY_ROLE == "site" and request.user.has_perm("datamodel.change_storagesite")

    def save_model(self, request: HttpRequest, obj: StorageSite, form: Any, change: bool) -> None:  # noqa: FBT001  # Django's signature
        identity.switch_site(site_id=obj.id, allow_read=obj.allow_read, allow_write=obj.allow_write)


class KeyAdmin(TableAdmin):
    """Public halves only."""

    uri_column = "name"
    search_help_text = "The start of a key id"
    ordering = ["name"]

    @admin.display(description="public key (Ed25519, base64)")
    def public(self, key: PreauthKeyPair | TrustedKey) -> str:
        return base64.b64encode(bytes(key.public_key)).decode()


@admin.register(PreauthKeyPair)
class PreauthKeyPairAdmin(KeyAdmin):
    list_display = ["name", "created_at", "active_from", "expires_at"]
    fields = ["name", "public", "created_at", "active_from", "expires_at"]
    actions = ["rotate"]

    def has_rotate_permission(self, request: HttpRequest) -> bool:
        return bool(request.user.has_perm("datamodel.add_preauthkeypair"))

    @admin.action(description="Rotate: publish a new key, which signs after the overlap", permissions=["rotate"])
    def rotate(self, request: HttpRequest, queryset: QuerySet[PreauthKeyPair]) -> None:
        """Whatever is selected: the newest key is replaced."""
        del queryset
        now, overlap = datetime.now(UTC), settings.INVENTORY_KEY_OVERLAP
        key_id = keys.rotate_keys(now=now, period=settings.INVENTORY_KEY_PERIOD, overlap=overlap, is_forced=True)
        told = f"Key {key_id} is published and signs from {now + overlap:%Y-%m-%d %H:%M:%S} UTC"
        self.message_user(request, told, messages.SUCCESS)


@admin.register(TrustedKey)
class TrustedKeyAdmin(KeyAdmin):
    list_display = ["name", "remote", "fetched_at"]
    list_select_related = ["remote"]
    fields = ["name", "remote", "public", "fetched_at"]


@admin.register(Restoration)
class RestorationAdmin(TableAdmin):
    """How far the way back into the federation is."""

    uri_column = None
    list_display = ["source", "standing", "begun_at", "begun_by", "step_at", "last_error"]
    fields = [
        "source",
        "standing",
        "taken_at",
        "begun_at",
        "begun_by",
        "step_at",
        "finished_at",
        "last_error",
        "report",
    ]

    @admin.display(description="state")
    def standing(self, found: Restoration) -> str:
        return "open" if found.finished_at is not None else restoration.description(found)
