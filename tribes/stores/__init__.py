"""Where sessions outlive a process: files and databases behind one small protocol.

Stores are synchronous, know bytes and errors only, and are called from request and worker threads.
"""
