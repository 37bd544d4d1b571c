"""The users of the load test: shoppers over HTTP, and those who keep a WebSocket or a stream of events open.

Each reports every outcome twice: to Locust (so that its table and its web page show it) and to the recorder the locustfile
gives out (which makes the summary). Where a kind of error is named, it comes from this short list, not from the network.
"""
