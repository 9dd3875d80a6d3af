"""Runs of retire and copies on their way out; a release loses its location when that goes: the database sees to it."""

import datamodel.models.fields
import django.db.models.deletion
import uuid
from django.db import migrations, models

_ADD = """
    ALTER TABLE copy_release ADD CONSTRAINT copy_release_of_location FOREIGN KEY (location_id)
        REFERENCES storage_location (artifact_id) ON DELETE SET NULL ON UPDATE SET NULL
"""
_DROP = "ALTER TABLE copy_release DROP CONSTRAINT copy_release_of_location"


class Migration(migrations.Migration):

    dependencies = [
        ('datamodel', '0006_releasing'),
        ('retention', '0001_rules'),
    ]

    operations = [
        migrations.CreateModel(
            name='CopyReleaseOutcome',
            fields=[
                ('outcome', models.CharField(max_length=16, primary_key=True, serialize=False)),
                ('files', models.BigIntegerField(default=0)),
                ('bytes', models.BigIntegerField(default=0)),
            ],
            options={
                'db_table': 'copy_release_outcome',
            },
        ),
        migrations.CreateModel(
            name='RetireRun',
            fields=[
                ('id', models.UUIDField(default=uuid.uuid4, primary_key=True, serialize=False)),
                ('namespace', datamodel.models.fields.UriField(max_length=512)),
                ('reason', models.CharField(max_length=200)),
                ('started_by', models.CharField(max_length=150)),
                ('state', models.CharField(choices=[('running', 'Running'), ('finished', 'Finished'), ('cancelled', 'Cancelled')], default='running', max_length=9)),
                ('after', datamodel.models.fields.UriField(max_length=512)),
                ('is_listed', models.BooleanField(default=False)),
                ('files', models.BigIntegerField(default=0)),
                ('bytes', models.BigIntegerField(default=0)),
                ('dropped_files', models.BigIntegerField(default=0)),
                ('dropped_bytes', models.BigIntegerField(default=0)),
                ('refused_files', models.BigIntegerField(default=0)),
                ('gone_files', models.BigIntegerField(default=0)),
                ('started_at', datamodel.models.fields.MillisField()),
                ('finished_at', datamodel.models.fields.MillisField(null=True)),
            ],
            options={
                'db_table': 'retire_run',
                'indexes': [models.Index(fields=['-started_at'], name='retire_run_newest')],
                'constraints': [models.UniqueConstraint(condition=models.Q(('state', 'running')), fields=('namespace',), name='retire_run_one_per_namespace'), models.CheckConstraint(condition=models.Q(('state__in', ['running', 'finished', 'cancelled'])), name='retire_run_state_known'), models.CheckConstraint(condition=models.Q(models.Q(('state', 'finished'), _negated=True), ('finished_at__isnull', False), _connector='OR'), name='retire_run_finished_at')],
            },
        ),
        migrations.CreateModel(
            name='CopyRelease',
            fields=[
                ('id', models.UUIDField(default=uuid.uuid4, primary_key=True, serialize=False)),
                ('artifact_id', models.UUIDField()),
                ('uri', datamodel.models.fields.UriField(max_length=512)),
                ('content_checksum', models.CharField(max_length=136)),
                ('content_length', models.BigIntegerField()),
                ('state', models.CharField(choices=[('asked', 'asked'), ('granted', 'granted'), ('returning', 'returning'), ('dropped', 'dropped'), ('refused', 'refused'), ('gone', 'gone')], max_length=9)),
                ('reason', models.CharField(default='', max_length=16)),
                ('detail', models.CharField(default='', max_length=300)),
                ('tries', models.IntegerField(default=0)),
                ('next_try_at', datamodel.models.fields.MillisField()),
                ('state_at', datamodel.models.fields.MillisField()),
                ('location', models.ForeignKey(db_constraint=False, null=True, on_delete=django.db.models.deletion.DO_NOTHING, related_name='releases', to='datamodel.storagelocation')),
                ('run', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='releases', to='retention.retirerun')),
            ],
            options={
                'db_table': 'copy_release',
                'indexes': [models.Index(condition=models.Q(('state__in', ['asked', 'returning'])), fields=['state', 'next_try_at'], name='copy_release_due'), models.Index(condition=models.Q(('state', 'granted')), fields=['artifact_id'], name='copy_release_granted'), models.Index(fields=['run', 'state', 'uri'], name='copy_release_of_run')],
                'constraints': [models.UniqueConstraint(condition=models.Q(('state__in', ['asked', 'granted', 'returning'])), fields=('location',), name='copy_release_one_open'), models.CheckConstraint(condition=models.Q(('state__in', ['asked', 'granted', 'returning', 'dropped', 'refused', 'gone'])), name='copy_release_state_known'), models.CheckConstraint(condition=models.Q(models.Q(('state__in', ['returning', 'refused']), _negated=True), models.Q(('reason', ''), _negated=True), _connector='OR'), name='copy_release_refused_why')],
            },
        ),
        migrations.RunSQL(_ADD, _DROP),
    ]
