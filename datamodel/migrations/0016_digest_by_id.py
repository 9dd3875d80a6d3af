"""The digest of a row is one of its metadata checksum alone, and is indexed in order of ids: trees are by id, in which order the locations
are indexed, too. Nothing reads artifacts by bucket any more."""

from django.db import migrations

# 64 bits of MD5 over the metadata checksum, which covers the id. The same at every inventory, whatever its machine or PostgreSQL.
WORD = """
CREATE FUNCTION digest_word(meta_checksum text) RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$ SELECT ('x' || left(md5(meta_checksum), 16))::bit(64)::bigint $$;
"""
OLD_DIGEST = """
CREATE FUNCTION artifact_digest(uri_bucket text, meta_checksum text) RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$ SELECT ('x' || left(uri_bucket, 3) || left(md5(meta_checksum), 13))::bit(64)::bigint $$;
"""
# In order of ids, as the tables of locations are: both side by side answer for any range of ids. The planner reads an expression from
# an index only if the index has its column too. No generated column: `OLD.* IS DISTINCT FROM NEW.*` of a trigger would always hold.
INDEX = "CREATE INDEX artifact_digest ON artifact (id, digest_word(meta_checksum)) INCLUDE (meta_checksum)"
OLD_INDEX = """
CREATE INDEX artifact_digest ON artifact (id, artifact_digest(uri_bucket, meta_checksum)) INCLUDE (uri_bucket, meta_checksum)
"""


class Migration(migrations.Migration):
    dependencies = [("datamodel", "0015_digest_by_bucket")]

    operations = [
        migrations.RunSQL("DROP INDEX artifact_digest", OLD_INDEX),
        migrations.RunSQL("DROP FUNCTION artifact_digest(text, text);", OLD_DIGEST),
        migrations.RunSQL(WORD, "DROP FUNCTION digest_word(text);"),
        migrations.RunSQL(INDEX, "DROP INDEX artifact_digest"),
        migrations.RemoveIndex(model_name="artifact", name="artifact_bucket"),
    ]
