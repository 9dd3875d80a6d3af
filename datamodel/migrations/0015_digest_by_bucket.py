"""A row's digest begins with its bucket: rows are grouped by bits of a number, where they were by pieces of text. The index by bucket
has the ids, so that the rows of some buckets are found and listed without a look at the table."""

from django.db import migrations, models

# 12 bits of the bucket and 52 of MD5 over the metadata checksum, which covers the id. The same at every inventory, whatever its
# machine or PostgreSQL; a bucket is five hex digits (`artifact_bucket_form`).
DIGEST = """
CREATE FUNCTION artifact_digest(uri_bucket text, meta_checksum text) RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$ SELECT ('x' || left(uri_bucket, 3) || left(md5(meta_checksum), 13))::bit(64)::bigint $$;
"""
WORD = """
CREATE FUNCTION digest_word(meta_checksum text) RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$ SELECT ('x' || substr(md5(meta_checksum), 1, 16))::bit(64)::bigint $$;
"""
# In order of ids, as the tables of locations are: a scan of both side by side needs no memory, however many rows there are.
# The planner reads an expression from an index only if the index has the columns too.
INDEX = """
CREATE INDEX artifact_digest ON artifact (id, artifact_digest(uri_bucket, meta_checksum)) INCLUDE (uri_bucket, meta_checksum)
"""
OLD_INDEX = "CREATE INDEX artifact_digest ON artifact (id, uri_bucket, digest_word(meta_checksum)) INCLUDE (meta_checksum)"
DROP_INDEX = "DROP INDEX artifact_digest"


class Migration(migrations.Migration):
    dependencies = [("datamodel", "0014_site_location_one_index")]

    operations = [
        migrations.RunSQL(DROP_INDEX, OLD_INDEX),
        migrations.RunSQL("DROP FUNCTION digest_word(text);", WORD),
        migrations.RunSQL(DIGEST, "DROP FUNCTION artifact_digest(text, text);"),
        migrations.RunSQL(INDEX, DROP_INDEX),
        migrations.RemoveIndex(model_name="artifact", name="artifact_bucket"),
        migrations.AddIndex(
            model_name="artifact", index=models.Index(fields=["uri_bucket", "id"], name="artifact_bucket")
        ),
    ]
