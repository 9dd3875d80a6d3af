"""`manage.py demo`: a federation of real processes on one machine, and real files that travel through it.

It starts the services as processes and knows them only by HTTP, as any other client.
"""
