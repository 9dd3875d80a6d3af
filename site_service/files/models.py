"""What the service must remember of a put transaction beside what the store keeps of it."""

from __future__ import annotations

from django.db import models


class PutTransaction(models.Model):
    """A put transaction that was begun here; the store holds its bytes under the same id.

    `token_digest` is the SHA-256 of the signed URL's token with which it was begun: that URL may finish it after its expiry,
    which was judged at `begun_at` (house, decision 5 of the issue's section on signed URLs).
    """

    id = models.CharField(max_length=128, primary_key=True)
    uri = models.CharField(max_length=512)
    total_length = models.BigIntegerField(null=True)
    content_type = models.CharField(max_length=128, null=True)
    content_encoding = models.CharField(max_length=128, null=True)
    token_digest = models.CharField(max_length=64, null=True)
    begun_at = models.DateTimeField()

    class Meta:
        db_table = "put_transaction"
        indexes = (models.Index(fields=["begun_at"], name="put_transaction_age"),)

    def __str__(self) -> str:
        return f"{self.id} {self.uri}"
