"""The clock, the transaction-id stamp of the feed, and metadata checksums as SQL."""

from django.db import migrations

# The one clock of an inventory: database time in milliseconds (house, decisions 5 and 10).
NOW = """
CREATE FUNCTION inventory_now() RETURNS timestamptz LANGUAGE sql VOLATILE PARALLEL SAFE
AS $$ SELECT date_trunc('milliseconds', clock_timestamp()) $$;
"""

# Whoever changes a row of a feed takes a new place in it; a statement that changes nothing does not.
STAMP = """
CREATE FUNCTION stamp_txid() RETURNS trigger LANGUAGE plpgsql
AS $$ BEGIN NEW.txid := pg_current_xact_id()::text::bigint; RETURN NEW; END $$;
"""

TABLES = [
    "artifact",
    "storage_site",
    "deleted_artifact_event",
    "deleted_storage_location_event",
    "storage_location_event",
]

# Reference `opencadc-storage-inventory`, 1.1: MD5 over the id and the non-null fields in order of their Java names.
CHECKSUMS = r"""
CREATE FUNCTION java_trim(value text) RETURNS bytea LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$ SELECT convert_to(btrim(coalesce(value, ''), E'\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f'
    '\x10\x11\x12\x13\x14\x15\x16\x17\x18\x19\x1a\x1b\x1c\x1d\x1e\x1f\x20'), 'UTF8') $$;

CREATE FUNCTION java_millis(value timestamptz) RETURNS bytea LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$ SELECT int8send((extract(epoch FROM value) * 1000)::bigint) $$;

CREATE FUNCTION artifact_meta_checksum(id uuid, uri text, uri_bucket text, content_checksum text,
    content_last_modified timestamptz, content_length bigint, content_type text, content_encoding text)
RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$ SELECT 'md5:' || md5(uuid_send(id) || java_trim(content_checksum) || java_trim(content_encoding)
    || java_millis(content_last_modified) || int8send(content_length) || java_trim(content_type)
    || java_trim(uri) || java_trim(uri_bucket)) $$;

CREATE FUNCTION event_meta_checksum(id uuid, uri text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$ SELECT 'md5:' || md5(uuid_send(id) || java_trim(uri)) $$;

CREATE FUNCTION site_meta_checksum(id uuid, allow_read boolean, allow_write boolean, name text, resource_id text)
RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$ SELECT 'md5:' || md5(uuid_send(id) || boolsend(allow_read) || boolsend(allow_write)
    || java_trim(name) || java_trim(resource_id)) $$;
"""


def triggers() -> list[migrations.RunSQL]:
    statements = []
    for table in TABLES:
        statements.append(
            migrations.RunSQL(
                f"CREATE TRIGGER {table}_insert BEFORE INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION stamp_txid();"
                f"CREATE TRIGGER {table}_update BEFORE UPDATE ON {table} FOR EACH ROW "
                "WHEN (OLD.* IS DISTINCT FROM NEW.*) EXECUTE FUNCTION stamp_txid();",
                f"DROP TRIGGER {table}_insert ON {table}; DROP TRIGGER {table}_update ON {table};",
            )
        )
    return statements


class Migration(migrations.Migration):
    dependencies = [("datamodel", "0001_model")]

    operations = [
        migrations.RunSQL(NOW, "DROP FUNCTION inventory_now();"),
        migrations.RunSQL(STAMP, "DROP FUNCTION stamp_txid();"),
        *triggers(),
        migrations.RunSQL(
            CHECKSUMS,
            "DROP FUNCTION site_meta_checksum; DROP FUNCTION event_meta_checksum; DROP FUNCTION artifact_meta_checksum; "
            "DROP FUNCTION java_millis; DROP FUNCTION java_trim;",
        ),
    ]
