{
    // Runs before anything is shown. Until then, and where no script runs, the page shows what it has without one.
    const root = document.documentElement;
    const fromWeb = location.protocol.startsWith('http');
    // From the web only the part of a large splat that is looked at is loaded; a signed link opens one file and no other.
    if (root.dataset.stream && fromWeb && !/X-Amz-Signature|[?&]whole/.test(location.search)) {
        location.replace(root.dataset.stream + location.search);
    }
    // Browsers load no modules from a disk.
    if (fromWeb || !('files' in root.dataset)) {
        root.classList.add('scripts');
    }
    if (window.parent !== window) {
        root.classList.add('embedded');
    }
    addEventListener(
        'error',
        (event) => {
            if (event.target instanceof HTMLScriptElement) {
                root.classList.remove('scripts'); // the viewer is missing
            }
        },
        true
    );
}
