"""Your own server as a Twisted application: twistd -n -y service.tac"""

from twisted.application.service import Application
from twisted.internet import reactor

from longconn import LongConnService, Settings

application = Application("example")
LongConnService(
    reactor,
    Settings(max_message=4096, history_size=1000),
    port=["127.0.0.1:9999"],
    tcp=["127.0.0.1:9998"],
).setServiceParent(application)
