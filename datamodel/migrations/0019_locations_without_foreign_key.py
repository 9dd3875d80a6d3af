"""A harvested page names one site in each of its rows, whose foreign key was looked at for each of them when it committed.

The site is that of a remote inventory, whose own foreign key keeps it; what is asked once, when a site is to go, stays a rule.
"""

import django.db.models.deletion
from django.db import migrations, models

_GUARD = """
CREATE FUNCTION keep_storage_site() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF EXISTS (SELECT FROM site_location WHERE site_id = OLD.id) THEN
        RAISE foreign_key_violation USING MESSAGE = format('storage_site %s is still named by site_location', OLD.id),
            TABLE = 'site_location';
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER storage_site_kept AFTER DELETE OR UPDATE OF id ON storage_site FOR EACH ROW EXECUTE FUNCTION keep_storage_site();
"""
_NO_GUARD = "DROP TRIGGER storage_site_kept ON storage_site; DROP FUNCTION keep_storage_site;"


class Migration(migrations.Migration):
    dependencies = [("datamodel", "0018_location_by_place")]

    operations = [
        migrations.AlterField(
            model_name="sitelocation",
            name="site",
            field=models.ForeignKey(
                db_constraint=False,
                db_index=False,
                on_delete=django.db.models.deletion.DO_NOTHING,
                to="datamodel.storagesite",
            ),
        ),
        migrations.RunSQL(_GUARD, _NO_GUARD),
    ]
