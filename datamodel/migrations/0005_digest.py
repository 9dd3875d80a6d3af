"""What the digest tree of `harvest.reconcile` sums, and the index that it is read from without a look at the rows."""

from django.db import migrations

# The first 64 bits of MD5 over a metadata checksum, which covers the id. The same at every inventory, whatever its machine or
# PostgreSQL, and defined for every text: an index must not refuse a row.
WORD = """
CREATE FUNCTION digest_word(meta_checksum text) RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$ SELECT ('x' || substr(md5(meta_checksum), 1, 16))::bit(64)::bigint $$;
"""
# In order of ids, as the tables of locations are: a scan of both side by side needs no memory, however many rows there are.
# The planner reads an expression from an index only if the index has the column too.
INDEX = """
CREATE INDEX CONCURRENTLY IF NOT EXISTS artifact_digest ON artifact (id, uri_bucket, digest_word(meta_checksum))
INCLUDE (meta_checksum)
"""


class Migration(migrations.Migration):
    atomic = False

    dependencies = [("datamodel", "0004_deletion_brake")]

    operations = [
        migrations.RunSQL(WORD, "DROP FUNCTION digest_word(text);"),
        migrations.RunSQL(INDEX, "DROP INDEX CONCURRENTLY IF EXISTS artifact_digest"),
    ]
