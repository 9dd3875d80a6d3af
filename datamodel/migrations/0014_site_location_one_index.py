"""`site_location_by_site` begins with the site: an index of the site alone only had to be kept."""

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("datamodel", "0013_checksums_inline")]

    operations = [
        migrations.AlterField(
            model_name="sitelocation",
            name="site",
            field=models.ForeignKey(
                db_index=False, on_delete=django.db.models.deletion.DO_NOTHING, to="datamodel.storagesite"
            ),
        ),
    ]
