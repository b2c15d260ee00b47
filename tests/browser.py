"""A headless Chromium, driven over its DevTools protocol through two pipes, with the standard library alone."""

import base64
import json
import os
import pathlib
import shutil
import subprocess
import time

CHROMIUM = shutil.which('chromium') or shutil.which('chromium-browser') or shutil.which('google-chrome')
_FLAGS = (
    '--headless',
    '--no-sandbox',
    '--disable-gpu',
    '--disable-quic',
    '--no-first-run',
    '--disable-background-networking',
    '--disable-component-update',
    '--disable-sync',
    '--remote-debugging-pipe',
)


class Browser:
    """A browser process with one page; use it in a `with` block.

    Args:
        profile: an empty folder.

    Attributes:
        complaints: what the page wrote to the console as a warning or an error, and every exception.
        requests: addresses that the page asked for.
    """

    def __init__(self, profile):
        self.complaints, self.requests = [], []
        # Chromium reads commands from its file descriptor 3 and answers on 4, each message ended by a zero byte.
        to_browser, self._commands = os.pipe()
        self._answers, from_browser = os.pipe()
        # Both ends are copied to numbers above 4, so that neither is overwritten before it is in its place.
        ends = [os.dup(end) for end in (to_browser, from_browser)]
        while min(ends) < 5:
            ends = [os.dup(end) for end in ends]

        def place():
            for end, number in zip(ends, (3, 4), strict=True):
                os.dup2(end, number)

        self._process = subprocess.Popen(
            [CHROMIUM, *_FLAGS, f'--user-data-dir={profile}', 'about:blank'],
            close_fds=False,
            preexec_fn=place,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for end in (to_browser, from_browser, *ends):
            os.close(end)
        self._buffer, self._count, self._session = b'', 0, None
        try:
            self._session = self.send('Target.attachToTarget', targetId=self._find_page(), flatten=True)['sessionId']
            for domain in ('Page', 'Runtime', 'Log', 'Network'):
                self.send(f'{domain}.enable')
        except BaseException:
            self.close()
            raise

    def _find_page(self):
        """The id of the page, which on a busy machine comes later than other targets."""
        for _ in range(500):
            for target in self.send('Target.getTargets')['targetInfos']:
                if target['type'] == 'page':
                    return target['targetId']
            time.sleep(0.02)
        raise RuntimeError('The browser has opened no page.')

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()

    def close(self):
        self._process.kill()
        self._process.wait()
        os.close(self._commands)
        os.close(self._answers)

    def open(self, path):
        """Loads a file, waits until its scripts have run, and returns the seconds that this took."""
        self.send('Page.navigate', url=pathlib.Path(path).resolve().as_uri())
        while self.run('document.readyState') != 'complete':
            time.sleep(0.02)
        return self.run('performance.timing.domContentLoadedEventEnd - performance.timing.navigationStart') / 1000

    def run(self, script):
        """The value of a JavaScript expression; a promise is waited for."""
        answer = self.send('Runtime.evaluate', expression=script, returnByValue=True, awaitPromise=True)
        if 'exceptionDetails' in answer:
            raise RuntimeError(f'{script}: {answer["exceptionDetails"]}')
        return answer['result'].get('value')

    def look(self, width, height, *, dark=False):
        """Sets the size of the window, in CSS pixels, and the colour scheme."""
        self.send(
            'Emulation.setDeviceMetricsOverride', width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        value = 'dark' if dark else 'light'
        self.send('Emulation.setEmulatedMedia', features=[{'name': 'prefers-color-scheme', 'value': value}])

    def press(self, key, code):
        """Presses a key, such as ('ArrowRight', 39)."""
        for kind in ('keyDown', 'keyUp'):
            self.send('Input.dispatchKeyEvent', type=kind, key=key, code=key, windowsVirtualKeyCode=code)

    def screenshot(self, path):
        pathlib.Path(path).write_bytes(base64.b64decode(self.send('Page.captureScreenshot')['data']))

    def send(self, method, **parameters):
        """Sends a command and returns its result."""
        self._count += 1
        message = {'id': self._count, 'method': method, 'params': parameters}
        if self._session:
            message['sessionId'] = self._session
        os.write(self._commands, json.dumps(message).encode() + b'\0')
        while True:
            while b'\0' not in self._buffer:
                received = os.read(self._answers, 1 << 20)
                if not received:
                    raise RuntimeError('The browser has gone.')
                self._buffer += received
            text, _, self._buffer = self._buffer.partition(b'\0')
            answer = json.loads(text)
            if answer.get('id') == self._count:
                if 'error' in answer:
                    raise RuntimeError(f'{method}: {answer["error"]}')
                return answer['result']
            self._note(answer.get('method'), answer.get('params', {}))

    def _note(self, event, details):
        if event == 'Runtime.exceptionThrown':
            self.complaints.append(str(details['exceptionDetails']))
        elif event == 'Log.entryAdded' and details['entry']['level'] in ('warning', 'error'):
            self.complaints.append(f'{details["entry"]["text"]} {details["entry"].get("url", "")}')
        elif event == 'Runtime.consoleAPICalled' and details['type'] in ('warning', 'error', 'assert'):
            self.complaints.append(str(details['args']))
        elif event == 'Network.requestWillBeSent':
            self.requests.append(details['request']['url'])
