"""Tables of the reports."""

import datamodel.models.fields
import django.db.models.deletion
import uuid
from django.db import migrations, models


class Migration(migrations.Migration):

    initial = True

    dependencies = [
        ('datamodel', '0002_feed'),
    ]

    operations = [
        migrations.CreateModel(
            name='ReconcileRun',
            fields=[
                ('id', models.UUIDField(default=uuid.uuid4, primary_key=True, serialize=False)),
                ('mode', models.CharField(max_length=6)),
                ('started_at', models.DateTimeField()),
                ('finished_at', models.DateTimeField(null=True)),
                ('is_complete', models.BooleanField(default=False)),
                ('rows_here', models.BigIntegerField(default=0)),
                ('rows_there', models.BigIntegerField(default=0)),
                ('requests', models.IntegerField(default=0)),
                ('traffic_bytes', models.BigIntegerField(default=0)),
                ('differences', models.JSONField(default=dict)),
                ('applied', models.JSONField(default=dict)),
                ('error', models.TextField(default='')),
                ('remote', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='reconcile_runs', to='datamodel.remoteinventory')),
            ],
            options={
                'db_table': 'reconcile_run',
            },
        ),
        migrations.CreateModel(
            name='ReconcileDifference',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('artifact_id', models.UUIDField()),
                ('uri', datamodel.models.fields.UriField(max_length=512, null=True)),
                ('label', models.CharField(max_length=32)),
                ('action', models.CharField(max_length=64)),
                ('is_applied', models.BooleanField()),
                ('run', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='found', to='reconcile.reconcilerun')),
            ],
            options={
                'db_table': 'reconcile_difference',
            },
        ),
        migrations.AddIndex(
            model_name='reconcilerun',
            index=models.Index(fields=['remote', '-started_at'], name='reconcile_run_latest'),
        ),
    ]
