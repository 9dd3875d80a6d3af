"""Bytes whose removal has begun never get a location again."""

from django.db import migrations

# A row lock on the quarantined row, if there is one, orders this against a purge: see `quarantine.py`. It costs one look into
# an index per new location.
REFUSE = """
CREATE FUNCTION refuse_removed_object() RETURNS trigger LANGUAGE plpgsql
AS $$
DECLARE found_state text;
BEGIN
    SELECT q.state INTO found_state FROM quarantined_object q
    WHERE q.storage_bucket = NEW.storage_bucket AND q.storage_id = NEW.storage_id FOR SHARE;
    IF found_state IN ('removing', 'purged') THEN
        RAISE unique_violation USING MESSAGE = 'the object ' || NEW.storage_id || ' was removed from quarantine';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER storage_location_not_removed BEFORE INSERT OR UPDATE OF storage_id, storage_bucket ON storage_location
FOR EACH ROW EXECUTE FUNCTION refuse_removed_object();
"""


class Migration(migrations.Migration):
    dependencies = [("file_validate", "0001_initial"), ("datamodel", "0002_feed")]

    operations = [
        migrations.RunSQL(
            REFUSE, "DROP TRIGGER storage_location_not_removed ON storage_location; DROP FUNCTION refuse_removed_object;"
        ),
    ]
