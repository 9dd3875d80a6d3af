"""A statement that names its own transaction, as that of a harvested page of new rows does, is not corrected row by row."""

from django.db import migrations

_TRIGGER = """
DROP TRIGGER artifact_insert ON artifact;
CREATE TRIGGER artifact_insert BEFORE INSERT ON artifact FOR EACH ROW {condition} EXECUTE FUNCTION stamp_txid();
"""
_IS_OF_ANOTHER = "WHEN (NEW.txid IS DISTINCT FROM pg_current_xact_id()::text::bigint)"


class Migration(migrations.Migration):
    dependencies = [("datamodel", "0019_locations_without_foreign_key")]

    operations = [migrations.RunSQL(_TRIGGER.format(condition=_IS_OF_ANOTHER), _TRIGGER.format(condition=""))]
