{
    // Runs in the module of the viewer's bundle, so createViewer is in scope.
    const element = (id) => document.getElementById(id);
    const { settings, rotation, half_fov_tangents: [across, down] } = JSON.parse(element('settings').textContent);

    // The viewer's field of view is that of the window's longer side; the first view shows all of the start camera's.
    const aspect = innerWidth / innerHeight;
    const horizontal = Math.max(across, down * aspect);
    const fov = (360 / Math.PI) * Math.atan(aspect > 1 ? horizontal : horizontal / aspect);
    settings.cameras[0].initial.fov = Math.min(Math.max(fov, 10), 120); // the range that the viewer accepts

    // A blob and not a data URL: Firefox refuses data URLs above 32 MB.
    const text = atob(element('sog').textContent);
    element('sog').remove();
    const bytes = new Uint8Array(text.length);
    for (let i = 0; i < text.length; i++) {
        bytes[i] = text.charCodeAt(i);
    }
    const contentUrl = URL.createObjectURL(new Blob([bytes], { type: 'application/octet-stream' }));

    const parameters = new URL(location.href).searchParams;
    if (parameters.has('noui')) {
        element('about').remove();
    }
    // A signed link opens one file; the report beside this page has a link of its own.
    if (parameters.has('X-Amz-Signature')) {
        document.querySelector('#about a')?.remove();
    }
    const complain = (error) => {
        const message = document.createElement('p');
        message.id = 'trouble';
        message.textContent = `The splat cannot be drawn: ${error?.message ?? error}`;
        document.body.append(message);
    };

    createViewer({
        container: document.body,
        settings,
        contentUrl,
        contentFilename: 'scene.sog',
        ui: !parameters.has('noui'),
        noanim: parameters.has('noanim'),
        renderer: parameters.has('webgpu') ? 'webgpu' : 'webgl'
    }).then((viewer) => {
        // The viewer's world is y-up and it turns every splat by its own default; the scene's up is put there instead.
        const orient = (entity) => entity.name === 'gsplat' && entity.setLocalRotation(...rotation);
        viewer.app.root.children.forEach(orient);
        viewer.app.root.on('childinsert', orient);
        viewer.app.assets.on('error', complain); // the viewer itself would go on showing its progress bar
        // Start still, at the first view, in orbit mode; the viewer would circle or fly on its own.
        const begin = () => {
            viewer.resetCamera();
            window.spaceportViewer = viewer;
        };
        viewer.state.loaded ? begin() : viewer.events.once('loaded:changed', begin);
    }).catch(complain);
}
