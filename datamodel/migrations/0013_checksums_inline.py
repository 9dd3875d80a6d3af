"""Checksums are computed within the statement that asks for them: a function that says it is immutable but calls `convert_to`
and `extract`, which are only stable, is called anew for each value, which was most of what proving a harvested row cost."""

from django.db import migrations

_FUNCTIONS = (
    "java_trim(text)",
    "java_millis(timestamptz)",
    "artifact_meta_checksum(uuid, text, text, text, timestamptz, bigint, text, text)",
    "event_meta_checksum(uuid, text)",
    "site_meta_checksum(uuid, boolean, boolean, text, text)",
)


def _declared(volatility: str) -> str:
    return " ".join(f"ALTER FUNCTION {function} {volatility};" for function in _FUNCTIONS)


class Migration(migrations.Migration):
    dependencies = [("datamodel", "0012_pairing")]

    operations = [migrations.RunSQL(_declared("STABLE"), _declared("IMMUTABLE"))]
